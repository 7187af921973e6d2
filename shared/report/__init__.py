"""The report on one file: a page of HTML that needs nothing else, to print and to keep."""
