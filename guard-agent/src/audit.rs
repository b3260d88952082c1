//! One record per decision, redacted, in a hash chain.
