"""Rank studies: does a score predict the accuracy of trained students?"""
