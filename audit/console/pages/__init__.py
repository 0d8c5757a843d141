"""One module a page, or a few that belong together; here are all routes."""

from audit.console.pages import login, overview, records, search, static, verdicts

__all__ = ["ROUTES"]

ROUTES = (
    *login.ROUTES,
    *overview.ROUTES,
    *records.ROUTES,
    *search.ROUTES,
    *static.ROUTES,
    *verdicts.ROUTES,
)
