// Go's network client and server, one fact a line, `<label>: <text>`.
//
//	who server PORT             answers `<address> <port>` of whom it sees, over HTTP
//	who client NAME:PORT...     asks it; each name has one address or several, of which some fail
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"syscall"
	"time"
)

// limit leaves two addresses enough: of a list, Go gives two seconds to each at least.
const limit = 3 * time.Second

func main() {
	switch os.Args[1] {
	case "server":
		fmt.Println(serve(os.Args[2]))
	case "client":
		for _, address := range os.Args[2:] {
			name, _, _ := strings.Cut(address, ":")
			fmt.Printf("net.Dialer to %s: %s\n", name, dial(net.Dialer{Timeout: limit}, address))
			fmt.Printf("net.Dialer without fall-back to %s: %s\n", name,
				dial(net.Dialer{Timeout: limit, FallbackDelay: -1}, address))
			fmt.Printf("http.Client to %s: %s\n", name, get(address))
		}
		alive := os.Args[2]
		local := &net.TCPAddr{Port: 21600}
		fmt.Printf("net.Dialer from a port of its own choice: %s\n", dial(net.Dialer{LocalAddr: local}, alive))
		multipath(alive)
	}
}

func serve(port string) error {
	listener, err := listen(":" + port)
	if err != nil {
		return err
	}
	answer := func(w http.ResponseWriter, r *http.Request) {
		host, port, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s %s", host, port)
	}
	return http.Serve(listener, http.HandlerFunc(answer))
}

func dial(dialer net.Dialer, address string) string {
	connection, err := dialer.Dial("tcp", address)
	if err != nil {
		return told(err)
	}
	defer connection.Close()
	return asked(connection)
}

func asked(connection net.Conn) string {
	return seen(body(connection), connection)
}

func body(connection net.Conn) string {
	fmt.Fprint(connection, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(connection)
	if err != nil {
		return told(err)
	}
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return body
}

func get(address string) string {
	var used net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { used = info.Conn }}
	ctx := httptrace.WithClientTrace(context.Background(), trace)
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+address+"/", nil)
	if err != nil {
		return told(err)
	}
	dialer := net.Dialer{Timeout: limit}
	client := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, ResponseHeaderTimeout: limit}}
	answer, err := client.Do(request)
	if err != nil {
		return told(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return told(err)
	}
	return seen(string(body), used)
}

// seen is what the server saw, and whether it is what the client holds.
func seen(body string, connection net.Conn) string {
	host, port, _ := net.SplitHostPort(connection.LocalAddr().String())
	// A listener for both families sees IPv4 as mapped.
	body = strings.TrimPrefix(body, "::ffff:")
	return fmt.Sprintf("connected to %s, the server saw %s, the same socket: %t",
		connection.RemoteAddr(), body, body == host+" "+port)
}

// told is an error, with what programs ask of it rather than read.
func told(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	errors.As(err, &errno)
	return fmt.Sprintf("%v, errno %d, time-out %t", err, int(errno), errors.As(err, &timeout) && timeout.Timeout())
}
