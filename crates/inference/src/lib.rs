//! The model catalog, upstream dialects, streams in, usage out.
