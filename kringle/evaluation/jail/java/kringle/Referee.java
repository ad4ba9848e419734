package kringle;

import java.lang.management.ManagementFactory;
import java.util.HashMap;
import java.util.Map;

/**
 * Run tests against a program that lives in another process, and say whether they ran to their end. The classes that run
 * here are the problem's own, with a call of `Remote` where the program would be; no line of any program ever does.
 */
public final class Referee {
    private Referee() {
    }

    public static void main(String[] arguments) {
        Channel channel = new Channel();
        Remote.channel = channel;
        Map<String, Map<String, Object>> known = new HashMap<>();
        Map<String, Object> request;
        while ((request = channel.receive()) != null) {
            String problem = (String) request.get("problem");
            if (request.containsKey("classes")) {
                known.put(problem, request);
            }
            Map<String, Object> answer = judge(known.get(problem));
            answer.put("nonce", request.get("nonce"));
            answer.put("cpu", ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime() / 1e9);
            channel.send(answer);
        }
    }

    private static Map<String, Object> judge(Map<String, Object> problem) {
        String[] tests = ((String) problem.get("tests")).split("\n", -1);
        int start = ((Number) problem.get("start")).intValue();
        Remote.over = null;
        try {
            new Loader(problem.get("classes"), true).runMain((String) problem.get("main"));
        } catch (Throwable error) {
            if (Remote.over == null) {
                return Failure.outcome("fail", Failure.describe(error, tests, start));
            }
        }
        return Remote.over == null ? Failure.outcome("pass", "")
                : Failure.outcome(Remote.outcome, Failure.oneLine(Remote.over));
    }
}
