//! HOW DO BYTES TRAVEL? Plain TCP, mutual TLS, HBONE, the tunnel pool and peer verification.
