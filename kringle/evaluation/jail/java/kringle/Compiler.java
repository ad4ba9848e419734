package kringle;

import com.sun.source.tree.ClassTree;
import com.sun.source.tree.CompilationUnitTree;
import com.sun.source.tree.MethodTree;
import com.sun.source.tree.ParameterizedTypeTree;
import com.sun.source.tree.Tree;
import com.sun.source.tree.VariableTree;
import com.sun.source.util.JavacTask;
import com.sun.source.util.SourcePositions;
import com.sun.source.util.Trees;
import com.sun.tools.javac.api.JavacTaskPool;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import javax.lang.model.element.Modifier;
import javax.tools.Diagnostic;
import javax.tools.DiagnosticCollector;
import javax.tools.FileObject;
import javax.tools.ForwardingJavaFileManager;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileManager;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.StandardJavaFileManager;
import javax.tools.StandardLocation;
import javax.tools.ToolProvider;

/**
 * Compile programs in memory, in one machine that stays warm and never runs any of them. The compiler's own tables of the
 * JDK's classes are kept from one program to the next (JavacTaskPool, which jshell uses for the same purpose); whatever a
 * program declares is dropped. Asked for the `shape` of a problem, it takes the tests apart: see `shape`.
 */
public final class Compiler {
    // Joining strings by plain calls: linking the dynamic ones costs a machine of one's own 20 ms, and means the same.
    private static final List<String> OPTIONS =
            List.of("-proc:none", "-nowarn", "-Xlint:none", "-g:source,lines", "-XDstringConcat=inline");
    private static final String FILE = "Problem.java";

    private final JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    private final JavacTaskPool pool = new JavacTaskPool(1);
    // Another one for the referee's copies: the tables that programs are compiled with must not know of `Remote`.
    private final JavacTaskPool refereePool = new JavacTaskPool(1);
    // The pool keeps the file manager that it sees first, so there is one for all programs, emptied before each.
    private final Memory standard;
    private final Memory withRemote;

    private Compiler(String tuples, String remote) throws IOException {
        standard = fileManager(List.of(new File(tuples)));
        withRemote = fileManager(List.of(new File(tuples), new File(remote)));
    }

    private Memory fileManager(List<File> path) throws IOException {
        StandardJavaFileManager made = compiler.getStandardFileManager(null, Locale.ROOT, StandardCharsets.UTF_8);
        made.setLocation(StandardLocation.CLASS_PATH, path);
        return new Memory(made);
    }

    public static void main(String[] arguments) throws IOException {
        Channel channel = new Channel();
        Compiler compiler = new Compiler(arguments[0], arguments[1]);
        Map<String, Object> request;
        while ((request = channel.receive()) != null) {
            Map<String, Object> answer;
            try {
                answer = request.containsKey("shape")
                        ? compiler.shape((String) request.get("shape"), ((Number) request.get("tests_at")).intValue(),
                                ((Number) request.get("hole")).intValue())
                        : compiler.compile((String) request.get("text"), request.containsKey("referee"));
            } catch (StackOverflowError | OutOfMemoryError error) { // nested or long beyond what the compiler takes
                answer = Failure.outcome("syntax", "the compiler gave up: " + error.getClass().getSimpleName());
            }
            answer.put("serial", request.get("serial"));
            channel.send(answer);
        }
    }

    private static final class Source extends SimpleJavaFileObject {
        private final String text;

        Source(String text) {
            super(URI.create("string:///" + FILE), Kind.SOURCE);
            this.text = text;
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            return text;
        }
    }

    private static final class Memory extends ForwardingJavaFileManager<StandardJavaFileManager> {
        private final Map<String, ByteArrayOutputStream> made = new LinkedHashMap<>();

        Memory(StandardJavaFileManager standard) {
            super(standard);
        }

        @Override
        public JavaFileObject getJavaFileForOutput(
                JavaFileManager.Location location, String name, JavaFileObject.Kind kind, FileObject sibling) {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            made.put(name, bytes);
            return new SimpleJavaFileObject(URI.create("bytes:///" + name.replace('.', '/')), kind) {
                @Override
                public OutputStream openOutputStream() {
                    return bytes;
                }
            };
        }
    }

    private Map<String, Object> compile(String text, boolean referee) {
        DiagnosticCollector<JavaFileObject> said = new DiagnosticCollector<>();
        Memory memory = referee ? withRemote : standard;
        memory.made.clear();
        List<Source> sources = List.of(new Source(text));
        boolean done = (referee ? refereePool : pool)
                .getTask(null, memory, said, OPTIONS, null, sources, JavacTask::call);
        if (!done) {
            return Failure.outcome("syntax", firstError(said));
        }
        Map<String, Object> classes = new LinkedHashMap<>();
        Set<String> own = new HashSet<>();
        List<byte[]> codes = new ArrayList<>();
        memory.made.forEach((name, bytes) -> {
            classes.put(name, Base64.getEncoder().encodeToString(bytes.toByteArray()));
            own.add(name.replace('.', '/'));
            codes.add(bytes.toByteArray());
        });
        Map<String, Object> answer = Failure.outcome("compiled", "");
        answer.put("classes", classes);
        answer.put("harmless", Screen.harmless(codes, own));
        return answer;
    }

    private static String firstError(DiagnosticCollector<JavaFileObject> said) {
        for (Diagnostic<? extends JavaFileObject> one : said.getDiagnostics()) {
            if (one.getKind() == Diagnostic.Kind.ERROR) {
                return Failure.oneLine("line " + one.getLineNumber() + ": " + one.getMessage(Locale.ROOT));
            }
        }
        return "the compiler failed without saying why";
    }

    /**
     * Take a right program and its tests (one text, the tests from `testsAt` on) apart. Returns `main` (the class whose main
     * method they are), `skeleton` (the tests with that method's body blanked: what a program is compiled with when it
     * runs apart from them), and `referee` (the text with the body of the method around `hole` replaced by a call of
     * `Remote`: what the tests are run with).
     */
    private Map<String, Object> shape(String text, int testsAt, int hole) throws IOException {
        JavacTask task = (JavacTask) compiler.getTask(null, standard, said -> { }, OPTIONS, null, List.of(new Source(text)));
        CompilationUnitTree unit = task.parse().iterator().next();
        SourcePositions positions = Trees.instance(task).getSourcePositions();
        for (Tree declared : unit.getTypeDecls()) {
            if (!(declared instanceof ClassTree owner)) {
                continue;
            }
            MethodTree main = null;
            MethodTree target = null;
            for (Tree member : owner.getMembers()) {
                if (!(member instanceof MethodTree method) || method.getBody() == null) {
                    continue;
                }
                long start = positions.getStartPosition(unit, method);
                if (method.getName().contentEquals("main") && start >= testsAt) {
                    main = method;
                } else if (start <= hole && method.getModifiers().getFlags().contains(Modifier.STATIC)) {
                    target = method; // the last one that begins before the hole
                }
            }
            if (main == null || target == null) {
                continue;
            }
            int[] tests = span(positions, unit, main.getBody());
            int[] body = span(positions, unit, target.getBody());
            String skeleton = text.substring(testsAt, tests[0] + 1)
                    + text.substring(tests[0] + 1, tests[1] - 1).replaceAll("[^\n]", " ") + text.substring(tests[1] - 1);
            // On one line each where the body was on many, so that the tests keep their line numbers.
            String stub = call(owner, target) + "\n".repeat((int) text.substring(body[0], body[1]).chars()
                    .filter(c -> c == '\n').count());
            Map<String, Object> answer = Failure.outcome("shape", "");
            answer.put("main", owner.getSimpleName().toString());
            answer.put("skeleton", skeleton);
            answer.put("referee", text.substring(0, body[0]) + stub + text.substring(body[1]));
            return answer;
        }
        return Failure.outcome("no shape", "the tests are no main method in the program's class");
    }

    private static int[] span(SourcePositions positions, CompilationUnitTree unit, Tree tree) {
        return new int[] {(int) positions.getStartPosition(unit, tree), (int) positions.getEndPosition(unit, tree)};
    }

    private static String call(ClassTree owner, MethodTree method) {
        List<String> types = new ArrayList<>();
        StringBuilder arguments = new StringBuilder();
        for (VariableTree parameter : method.getParameters()) {
            types.add('"' + erased(parameter.getType()) + '"');
            arguments.append(", (Object) ").append(parameter.getName());
        }
        String result = method.getReturnType().toString();
        String cast = switch (result) {
            case "void" -> "";
            case "long" -> "return (Long) ";
            case "int" -> "return (Integer) ";
            case "short" -> "return (Short) ";
            case "byte" -> "return (Byte) ";
            case "char" -> "return (Character) ";
            case "float" -> "return (Float) ";
            case "double" -> "return (Double) ";
            case "boolean" -> "return (Boolean) ";
            default -> "return (" + result + ") ";
        };
        return "{ " + cast + "kringle.Remote.call(\"" + owner.getSimpleName() + "\", \"" + method.getName()
                + "\", new String[] {" + String.join(", ", types) + "}" + arguments + "); }";
    }

    /** A type's simple name without its arguments, as `Class.getSimpleName` tells it. */
    private static String erased(Tree type) {
        if (type instanceof ParameterizedTypeTree parameterized) {
            return erased(parameterized.getType());
        }
        String name = type.toString();
        int brackets = name.indexOf('[');
        String plain = brackets < 0 ? name : name.substring(0, brackets);
        int arguments = plain.indexOf('<');
        plain = arguments < 0 ? plain : plain.substring(0, arguments);
        return plain.substring(plain.lastIndexOf('.') + 1) + (brackets < 0 ? "" : name.substring(brackets));
    }
}
