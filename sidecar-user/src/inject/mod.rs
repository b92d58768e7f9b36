//! WHAT DOES A POD LOOK LIKE WITH ITS SIDECAR? Pod in, pod out, or the reasons why not; pure.
