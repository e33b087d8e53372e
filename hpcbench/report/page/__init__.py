"""The HTML report: one file that holds results, and the program that shows, filters and sorts them.

In: a Collection. Out: a page that asks nothing of any network. `payload.py` puts together what it shows, as one JSON
object; `frame.py` puts that into `templates/report/`. Nothing here judges a result: the rows that are best come from
`hpcbench/report/rows.py`, for every format alike.
"""

from hpcbench.report.page.frame import render_page

__all__ = ["render_page"]
