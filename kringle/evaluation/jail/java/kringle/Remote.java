package kringle;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What the referee's copy of a problem calls in place of the program: asks the program's process, by way of the host. */
public final class Remote {
    static Channel channel;
    static String over; // the end of the program in the middle of its tests: tests may catch anything and go on
    static String outcome;

    private Remote() {
    }

    public static Object call(String className, String method, String[] types, Object... arguments) {
        if (over != null) {
            throw new IllegalStateException(over);
        }
        List<Object> given = new ArrayList<>();
        for (Object argument : arguments) {
            given.add(Codec.encode(argument));
        }
        Map<String, Object> question = new LinkedHashMap<>();
        question.put("class", className);
        question.put("method", method);
        question.put("types", List.of(types));
        question.put("arguments", given);
        channel.send(Map.of("ask", question));
        Map<String, Object> reply = channel.receive();
        if (reply == null || reply.containsKey("gone")) {
            throw end("ended", "the program ended during its tests");
        }
        if (!(reply.get("answer") instanceof Map<?, ?> answer)) {
            throw end("tampered", "an answer that is none");
        }
        if (answer.get("raised") instanceof String raised) {
            throw new RuntimeException(raised);
        }
        if (!answer.containsKey("value")) {
            throw end("tampered", "an answer that is none");
        }
        try {
            return Codec.decode(answer.get("value"));
        } catch (RuntimeException error) {
            throw end("tampered", "an answer that is none: " + error.getMessage());
        }
    }

    private static RuntimeException end(String how, String why) {
        outcome = how;
        over = why;
        return new IllegalStateException(why);
    }
}
