//! WHAT DO DISCOVERY SERVERS AND CLIENTS SAY? Istio workload discovery: its messages, and the state of its two ends.
