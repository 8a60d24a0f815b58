"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const themed = layout => {
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--line") };
    const own = { font: { color: colour("--ink"), family: "inherit", size: 13 },
      hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), align: "left",
        font: { color: colour("--ink") } } };
    for (const name of ["xaxis", "yaxis"]) own[name] = { ...layout[name], ...axis };
    return { ...layout, ...own };
  };
  const settings = { responsive: true, displaylogo: false, displayModeBar: false };
  const draw = place => {
    const figure = figures[place.dataset.chart];
    if (!figure || place.dataset.drawn === place.dataset.chart) return;
    place.dataset.drawn = place.dataset.chart;
    if (figure.layout.height) place.style.minHeight = figure.layout.height + "px";
    Plotly.react(place, figure.data, themed(figure.layout), settings);
  };
  const seen = place => place.offsetParent !== null;
  const drawVisible = () => all(".chart").filter(seen).forEach(draw);
  const redraw = () => {
    all(".chart").forEach(place => delete place.dataset.drawn);
    drawVisible();
  };

  const select = (list, name) => {
    const tabs = all("[role=tab]", list);
    for (const tab of tabs) {
      const on = tab.getAttribute("aria-controls") === name;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    drawVisible();
  };
  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => select(list, tab.getAttribute("aria-controls")));
      tab.addEventListener("keydown", event => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(i + step + tabs.length) % tabs.length];
        next.focus(); next.click();
      });
    });
    if (tabs.length) select(list, tabs[0].getAttribute("aria-controls"));
  }

  const follow = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const view = target && target.closest(".view");
    if (!view) return;
    select(document.querySelector("nav"), view.id);
    if (target.tagName === "DETAILS") target.open = true;
    target.scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", follow);

  for (const table of all("table.sortable")) {
    const body = table.tBodies[0];
    all("th button", table).forEach(button => button.addEventListener("click", () => {
      const head = button.parentElement, column = head.cellIndex;
      const up = head.getAttribute("aria-sort") === "descending";
      all("th", table).forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rank = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const known = !isNaN(x) && !isNaN(y);
        return (up ? 1 : -1) * (known ? x - y : x.localeCompare(y));
      };
      body.append(...[...body.rows].sort(rank));
    }));
  }
  const words = document.getElementById("filter"), front = document.getElementById("front");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of document.getElementById("best").tBodies[0].rows) {
      const text = row.dataset.text.toLowerCase();
      row.hidden = !wanted.every(word => text.includes(word)) ||
        (front.checked && !("front" in row.dataset));
      left += !row.hidden;
    }
    document.getElementById("left").textContent = left + " shown";
  };
  if (words) { words.addEventListener("input", filter); front.addEventListener("change", filter); filter(); }

  for (const choice of all("select[data-scatter]")) {
    choice.addEventListener("change", () => {
      const place = document.getElementById(choice.dataset.scatter);
      place.dataset.chart = choice.value;
      draw(place);
    });
  }

  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  document.getElementById("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme || (dark() ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  follow();
  drawVisible();
})();
