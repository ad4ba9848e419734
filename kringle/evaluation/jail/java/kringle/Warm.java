package kringle;

import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Run harmless programs one after another, each with its tests and in a class loader of its own. Nothing from here is a
 * pass. Any doubt (time, memory, output) is answered with "defer": the host runs that program in a machine of its own,
 * and this one, where it cannot be trusted any more, ends itself.
 */
public final class Warm {
    private static final int MOST_OUTPUT = 1 << 16; // bytes

    private Warm() {
    }

    private static final class Sink extends OutputStream {
        private int written;

        @Override
        public void write(int b) {
            written++;
        }

        @Override
        public void write(byte[] bytes, int offset, int length) {
            written += Math.min(length, MOST_OUTPUT);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Channel channel = new Channel();
        ThreadMXBean clock = ManagementFactory.getThreadMXBean();
        Map<String, Object> request;
        while ((request = channel.receive()) != null) {
            Sink sink = new Sink();
            System.setOut(new PrintStream(sink, true));
            System.setErr(new PrintStream(sink, true));
            Map<String, Object> asked = request;
            Map<String, Object> answer = new LinkedHashMap<>();
            long[] used = new long[1];
            Thread thread = new Thread(() -> {
                answer.putAll(run(asked));
                used[0] = clock.getCurrentThreadCpuTime();
            });
            thread.setDaemon(true);
            thread.start();
            thread.join(Math.max(1, (long) (1000 * ((Number) asked.get("budget")).doubleValue())));
            if (thread.isAlive()) {
                channel.send(serial(Failure.outcome("defer", ""), asked, 0));
                Runtime.getRuntime().halt(0); // nothing else ends a thread
            }
            boolean doubt = sink.written >= MOST_OUTPUT || "memory".equals(answer.get("outcome"));
            channel.send(serial(doubt ? Failure.outcome("defer", "") : answer, asked, used[0]));
            if (doubt) {
                Runtime.getRuntime().halt(0);
            }
        }
    }

    private static Map<String, Object> run(Map<String, Object> request) {
        try {
            new Loader(request.get("classes"), false).runMain((String) request.get("main"));
            return Failure.outcome("pass", "");
        } catch (Throwable error) {
            String[] tests = ((String) request.get("tests")).split("\n", -1);
            return Failure.report(error, tests, ((Number) request.get("start")).intValue());
        }
    }

    private static Map<String, Object> serial(Map<String, Object> answer, Map<String, Object> asked, long nanoseconds) {
        Map<String, Object> made = new LinkedHashMap<>(answer);
        made.put("serial", asked.get("serial"));
        made.put("cpu", nanoseconds / 1e9);
        return made;
    }
}
