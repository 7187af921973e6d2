"""Reading untrusted media: sniffed, demuxed and decoded in a fenced child process, never in the caller."""
