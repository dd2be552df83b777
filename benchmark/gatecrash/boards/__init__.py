"""Boards: results as tables, written in several formats, and published so that others can check them.

    results ──► panel ──► standings, statistics ──► tables ──► sections ──► page, leaderboard, report
                                                    (content: neutral)           │
                                                                      render: Markdown, HTML, CSV

`content` is the neutral form of tables and text; all words are in `sections` and `tables`. `plots` draws figures, `published` keeps a
folder of boards, `source` finds the results to show, `outdated` finds cells of older versions, `verify` runs cells again. Seeds are the
unit of all statistics.
"""
