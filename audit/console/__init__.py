"""The audit console: what a regulator sees. Server-rendered pages over HTTPS, without scripts.

    settings   its limits            tls        TLS 1.3, certificates renewed without a restart
    sessions   who is signed in      oidc       signing in at an OpenID provider
    gate       headers, sign-in, CSRF, rates, errors: around every page
    desk       what a signed-in person may read, each read recorded before it is shown
    pages/     one module a page     spans      spans of the five services, if asked for
    PURE: fields, charts, waterfall, rates

docs/console.md tells how to sign in, and what each page shows.
"""
