package kringle;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * Messages over standard input's descriptor, which is one end of a socket: four bytes of length, then JSON. Programs find
 * an empty standard input in its place.
 */
final class Channel {
    private static final int LONGEST = 16 << 20; // bytes, as in wire.py

    private final DataInputStream in = new DataInputStream(new FileInputStream(FileDescriptor.in));
    private final FileOutputStream out = new FileOutputStream(FileDescriptor.in);

    Channel() {
        System.setIn(new ByteArrayInputStream(new byte[0]));
    }

    /** The next message; null when the other side has gone. */
    @SuppressWarnings("unchecked")
    Map<String, Object> receive() {
        try {
            int length;
            try {
                length = in.readInt();
            } catch (EOFException end) {
                return null;
            }
            if (length < 0 || length > LONGEST) {
                throw new IOException("a message that is too long");
            }
            byte[] body = new byte[length];
            in.readFully(body);
            return (Map<String, Object>) Json.parse(new String(body, StandardCharsets.UTF_8));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    synchronized void send(Map<String, Object> message) {
        byte[] body = Json.write(message).getBytes(StandardCharsets.US_ASCII);
        byte[] whole = new byte[body.length + 4];
        for (int i = 0; i < 4; i++) {
            whole[i] = (byte) (body.length >>> 24 - 8 * i);
        }
        System.arraycopy(body, 0, whole, 4, body.length);
        try {
            out.write(whole);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
