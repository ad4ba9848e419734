package kringle;

import java.util.LinkedHashMap;
import java.util.Map;

/** How a failure is told: one line, the same in the warm machine and in a fresh one. */
final class Failure {
    private static final int LONGEST = 300; // characters, as in execute.py

    private Failure() {
    }

    /** A report on what a program has thrown. `start` is the number of lines before the tests. */
    static Map<String, Object> report(Throwable error, String[] tests, int start) {
        return outcome(error instanceof OutOfMemoryError ? "memory" : "fail", describe(error, tests, start));
    }

    static Map<String, Object> outcome(String outcome, String evidence) {
        Map<String, Object> made = new LinkedHashMap<>();
        made.put("outcome", outcome);
        made.put("evidence", evidence);
        made.put("quiet", false);
        return made;
    }

    static String describe(Throwable error, String[] tests, int start) {
        String name = error.getClass().getName();
        name = name.substring(name.lastIndexOf('.') + 1);
        String text = name;
        try {
            String message = error.getMessage();
            if (message != null && !(error instanceof AssertionError)) {
                text += ": " + message;
            }
        } catch (Throwable unreadable) {
            text += ": (its message cannot be read)";
        }
        if (!(error instanceof OutOfMemoryError)) { // where it happened to run out is an accident
            for (StackTraceElement frame : error.getStackTrace()) {
                int line = frame.getLineNumber() - start;
                if ("Problem.java".equals(frame.getFileName()) && line >= 1 && line <= tests.length) {
                    text = text.substring(0, Math.min(text.length(), LONGEST / 2)) + " in the tests, line " + line + ": "
                            + tests[line - 1].trim();
                    break;
                }
            }
        }
        return oneLine(text);
    }

    /** Without line breaks and without identity hash codes, which differ from run to run. */
    static String oneLine(String text) {
        String line = text.replaceAll("\\s+", " ").replaceAll("@[0-9a-f]{5,8}\\b", "@...").trim();
        return line.substring(0, Math.min(line.length(), LONGEST));
    }
}
