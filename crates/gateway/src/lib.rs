//! HTTP in: routes, authentication, SSE out, errors to statuses.
