package kringle;

import java.util.Map;

/**
 * Run one program with its tests in one fresh machine, as `java -ea Problem` would, and say how it went. The report of a
 * pass is sent by the hook that runs when the machine ends by itself, all of the program's threads included: a program
 * that ends the machine earlier leaves no word.
 */
public final class Together {
    private static volatile boolean ended;

    private Together() {
    }

    public static void main(String[] arguments) throws Exception {
        Channel channel = new Channel();
        Map<String, Object> request = channel.receive();
        String[] tests = ((String) request.get("tests")).split("\n", -1);
        int start = ((Number) request.get("start")).intValue();
        Loader loader = new Loader(request.get("classes"), false);
        Runtime.getRuntime().addShutdownHook(new Thread() {
            @Override
            public void run() {
                if (ended) {
                    channel.send(Failure.outcome("pass", ""));
                }
            }
        });
        try {
            loader.runMain((String) request.get("main"));
            ended = true;
        } catch (Throwable error) {
            channel.send(Failure.report(error, tests, start));
            Runtime.getRuntime().halt(1);
        }
    }
}
