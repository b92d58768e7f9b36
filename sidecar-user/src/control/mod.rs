//! ROLE: the control process. Today it is the embedded CA.
