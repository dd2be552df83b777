"""One HTML page of many results, for a person with a browser.

It says what the page of a published board says, and has every cell's details, pictures and tables below. It reads without its script too:
sorting and choosing a measure are conveniences.
"""

from gatecrash.boards.report.drawing import drawn, plots_of
from gatecrash.boards.report.page import IllustratedPanel, report

__all__ = ["IllustratedPanel", "drawn", "plots_of", "report"]
