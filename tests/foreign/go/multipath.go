//go:build go1.21

package main

import (
	"context"
	"fmt"
	"net"
)

func dialMultipath(address string) string {
	dialer := net.Dialer{Timeout: limit}
	dialer.SetMultipathTCP(true)
	connection, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return told(err)
	}
	defer connection.Close()
	multipath, err := connection.(*net.TCPConn).MultipathTCP()
	return fmt.Sprintf("%s, MPTCP %t %v", asked(connection), multipath, err)
}
