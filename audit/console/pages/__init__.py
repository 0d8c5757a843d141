"""One module a page, or a few that belong together; here are all routes."""

from audit.console.pages import (
    archive,
    login,
    overview,
    records,
    search,
    static,
    subjects,
    verdicts,
)

__all__ = ["ROUTES"]

ROUTES = tuple(
    route
    for page in (archive, login, overview, records, search, static, subjects, verdicts)
    for route in page.ROUTES
)
