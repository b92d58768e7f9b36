//! One validated configuration from flags, environment and file. The only reader of the environment.
