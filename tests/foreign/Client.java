/* Network clients of a JVM: `java Client.java NAME:PORT...`, one fact a line, `<label>: <text>`.
 *
 * Each name has one address or several, of which some fail. The server answers `<address> <port>` of whom it sees.
 */

import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.time.Duration;

class Client {
    static final int LIMIT = 2000;
    static final byte[] REQUEST = "GET / HTTP/1.0\r\n\r\n".getBytes(StandardCharsets.US_ASCII);

    interface Ask {
        String of(String name) throws Exception;
    }

    /** Of the target that is asked now. */
    static int port;

    public static void main(String[] args) throws Exception {
        for (String target : args) {
            int colon = target.indexOf(':');
            String name = target.substring(0, colon);
            port = Integer.parseInt(target.substring(colon + 1));
            fact("Socket to the first address of", name, Client::socket);
            fact("Socket down the list of", name, Client::list);
            fact("SocketChannel to the first address of", name, Client::channel);
            fact("HttpClient to", name, Client::httpClient);
            fact("HttpURLConnection to", name, Client::urlConnection);
        }
        // Its own threads would keep the program alive for a while.
        System.exit(0);
    }

    static void fact(String what, String name, Ask ask) {
        String told;
        try {
            told = ask.of(name);
        } catch (Exception error) {
            told = "";
            for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                told += cause.getClass().getName() + " " + cause.getMessage() + "; ";
            }
        }
        System.out.println(what + " " + name + ": " + told.replace('\n', ' '));
    }

    static String socket(String name) throws IOException {
        try (Socket socket = new Socket()) {
            return asked(socket, InetAddress.getByName(name));
        }
    }

    /** As database drivers do: the next address when one fails. */
    static String list(String name) throws IOException {
        String told = "";
        for (InetAddress address : InetAddress.getAllByName(name)) {
            try (Socket socket = new Socket()) {
                return told + asked(socket, address);
            } catch (IOException error) {
                told += address.getHostAddress() + " " + error + "; ";
            }
        }
        return told + "none left";
    }

    static String asked(Socket socket, InetAddress address) throws IOException {
        socket.connect(new InetSocketAddress(address, port), LIMIT);
        socket.setSoTimeout(LIMIT);
        socket.getOutputStream().write(REQUEST);
        String answer = new String(socket.getInputStream().readAllBytes(), StandardCharsets.US_ASCII);
        return seen(answer, (InetSocketAddress) socket.getLocalSocketAddress(), socket.getRemoteSocketAddress());
    }

    static String channel(String name) throws IOException {
        try (SocketChannel channel = SocketChannel.open(); Selector selector = Selector.open()) {
            channel.configureBlocking(false);
            String told = "connected at once: " + channel.connect(new InetSocketAddress(name, port));
            channel.register(selector, SelectionKey.OP_CONNECT);
            if (selector.select(LIMIT) == 0) {
                return told + ", nothing for " + LIMIT + " ms";
            }
            channel.finishConnect();
            channel.keyFor(selector).cancel();
            selector.selectNow();
            channel.configureBlocking(true);
            channel.write(ByteBuffer.wrap(REQUEST));
            ByteBuffer answer = ByteBuffer.allocate(4096);
            while (channel.read(answer) >= 0) { }
            String text = new String(answer.array(), 0, answer.position(), StandardCharsets.US_ASCII);
            return told + ", " + seen(text, (InetSocketAddress) channel.getLocalAddress(), channel.getRemoteAddress());
        }
    }

    static String httpClient(String name) throws Exception {
        HttpClient client = HttpClient.newBuilder().connectTimeout(Duration.ofMillis(LIMIT)).build();
        HttpRequest request = HttpRequest.newBuilder(uri(name)).timeout(Duration.ofMillis(2 * LIMIT)).build();
        var answer = client.send(request, BodyHandlers.ofString());
        return answer.statusCode() + " " + answer.body();
    }

    static String urlConnection(String name) throws IOException {
        var connection = (HttpURLConnection) uri(name).toURL().openConnection();
        connection.setConnectTimeout(LIMIT);
        connection.setReadTimeout(LIMIT);
        return connection.getResponseCode() + " " + new String(connection.getInputStream().readAllBytes());
    }

    static URI uri(String name) {
        return URI.create("http://" + name + ":" + port + "/");
    }

    /** What the server saw, and whether it is what the client holds. */
    static String seen(String answer, InetSocketAddress local, Object remote) throws IOException {
        String body = answer.substring(answer.indexOf("\r\n\r\n") + 4).trim().replace("::ffff:", "");
        int space = body.indexOf(' ');
        boolean same = InetAddress.getByName(body.substring(0, space)).equals(local.getAddress())
            && Integer.parseInt(body.substring(space + 1)) == local.getPort();
        return "connected to " + remote + ", the server saw " + body + ", the same socket: " + same;
    }
}
