//go:build go1.21

package main

import (
	"context"
	"fmt"
	"net"
)

// listen accepts MPTCP and TCP, as every Go server does by default since Go 1.24.
func listen(address string) (net.Listener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(true)
	return config.Listen(context.Background(), "tcp", address)
}

// multipath dials by MPTCP, and tells apart what the server, the socket's names and the socket itself say.
func multipath(address string) {
	dialer := net.Dialer{Timeout: limit}
	dialer.SetMultipathTCP(true)
	connection, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		fmt.Printf("MPTCP: %s\n", told(err))
		return
	}
	defer connection.Close()
	is, err := connection.(*net.TCPConn).MultipathTCP()
	fmt.Printf("MPTCP, the socket's names: %s to %s\n", connection.LocalAddr(), connection.RemoteAddr())
	fmt.Printf("MPTCP, what the server saw: %s\n", body(connection))
	fmt.Printf("MPTCP, whether it is: %t %v\n", is, err)
}
