//go:build !go1.21

package main

import "net"

// Go has learned MPTCP in 1.21.
func listen(address string) (net.Listener, error) {
	return net.Listen("tcp", address)
}

// Nothing to ask before that.
func multipath(string) {}
