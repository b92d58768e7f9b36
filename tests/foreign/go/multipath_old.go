//go:build !go1.21

package main

import "net"

// Go has learned MPTCP in 1.21; before, this is a dial like any other.
func dialMultipath(address string) string {
	return dial(net.Dialer{Timeout: limit}, address)
}
