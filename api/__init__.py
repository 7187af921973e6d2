"""The gateway: HTTP in, JSON out. It stores, queues and reads; it computes nothing."""
