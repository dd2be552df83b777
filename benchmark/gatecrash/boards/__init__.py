"""Boards: what is told of many results, and how it is published so that others can check it.

    results ──► panel ──► standings, sections ──► page (Markdown)
                             ▲
                        statistics

Everything here reads stored results only, and knows neither plugins nor the command line: `published` keeps a board's JSON and Markdown
together, `outdated` asks what has moved on since, `verify` runs cells again. Seeds are the unit of all statistics.
"""
