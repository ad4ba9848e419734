package kringle;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.util.Set;

/**
 * Which programs may share a machine with the next one: those whose classes name nothing that could reach beyond their own
 * objects. Judged from the compiled constant pools (JVMS 4.4), never from a run. Everything else gets a machine of its own,
 * which changes no verdict.
 */
final class Screen {
    /** Packages of which every class may be used; sub-packages are named one by one. */
    private static final Set<String> PACKAGES = Set.of(
            "java/util/function", "java/util/stream", "java/util/regex", "java/math", "java/text", "org/javatuples",
            "java/util/concurrent/atomic");
    private static final Set<String> NOT_OF_UTIL = Set.of(
            "Timer", "TimerTask", "ServiceLoader", "ResourceBundle", "PropertyResourceBundle", "ListResourceBundle",
            "Properties", "Locale", "TimeZone", "SimpleTimeZone", "Currency", "Observable", "EventListenerProxy",
            "WeakHashMap");
    private static final Set<String> OF_LANG = Set.of(
            "Object", "String", "StringBuilder", "StringBuffer", "StringIndexOutOfBoundsException", "Math", "StrictMath",
            "Integer", "Long", "Short", "Byte", "Character", "Boolean", "Float", "Double", "Number", "Void", "Iterable",
            "Comparable", "CharSequence", "Enum", "Record", "Override", "FunctionalInterface", "SuppressWarnings",
            "Deprecated", "SafeVarargs", "Cloneable", "Throwable", "Exception", "RuntimeException", "Error", "AssertionError",
            "ArithmeticException", "ArrayIndexOutOfBoundsException", "ArrayStoreException", "ClassCastException",
            "CloneNotSupportedException", "IllegalArgumentException", "IllegalStateException", "IndexOutOfBoundsException",
            "InterruptedException", "NegativeArraySizeException", "NullPointerException", "NumberFormatException",
            "UnsupportedOperationException", "StackOverflowError", "MatchException", "AutoCloseable", "Appendable",
            "invoke/LambdaMetafactory", "invoke/StringConcatFactory", "invoke/MethodHandles$Lookup", "invoke/CallSite",
            "invoke/MethodHandle", "invoke/MethodType", "invoke/MethodHandles", "runtime/ObjectMethods",
            "runtime/SwitchBootstraps", "invoke/TypeDescriptor");
    private static final Set<String> OF_IO = Set.of("PrintStream", "Serializable", "IOException", "UncheckedIOException");
    /** Methods and fields of classes that may not be used as a whole. */
    private static final Set<String> MEMBERS = Set.of(
            "java/lang/System.out", "java/lang/System.err", "java/lang/System.arraycopy", "java/lang/System.nanoTime",
            "java/lang/System.currentTimeMillis", "java/lang/System.lineSeparator", "java/lang/System.identityHashCode",
            "java/lang/Class.desiredAssertionStatus", "java/lang/Class.getSimpleName", "java/lang/Class.getName",
            "java/lang/Class.isInstance", "java/lang/Class.equals", "java/lang/Class.hashCode");
    private static final Set<String> POWERFUL_NAMES = Set.of(
            "parallel", "parallelStream", "parallelSort", "parallelPrefix", "parallelSetAll", "setDefault", "finalize",
            "getDeclaringClass", "describeConstable", "getContextClassLoader", "lookup", "revealDirect", "defineClass",
            "findStatic", "findVirtual", "unreflect", "invokeExact", "invokeWithArguments", "privateLookupIn", "close",
            "wait", "notify", "notifyAll");

    private Screen() {
    }

    static boolean harmless(Iterable<byte[]> classes, Set<String> own) {
        for (byte[] code : classes) {
            if (!harmless(code, own)) {
                return false;
            }
        }
        return true;
    }

    private static boolean harmless(byte[] code, Set<String> own) {
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(code))) {
            in.skipBytes(8);
            int count = in.readUnsignedShort();
            String[] texts = new String[count];
            int[] kinds = new int[count];
            int[] first = new int[count];
            int[] second = new int[count];
            for (int i = 1; i < count; i++) {
                kinds[i] = in.readUnsignedByte();
                switch (kinds[i]) {
                    case 1 -> texts[i] = in.readUTF();
                    case 3, 4 -> in.readInt();
                    case 5, 6 -> {
                        in.readLong();
                        i++;
                    }
                    case 7, 8, 16, 19, 20 -> first[i] = in.readUnsignedShort();
                    case 9, 10, 11, 12, 17, 18 -> {
                        first[i] = in.readUnsignedShort();
                        second[i] = in.readUnsignedShort();
                    }
                    case 15 -> {
                        in.readUnsignedByte();
                        first[i] = in.readUnsignedShort();
                    }
                    default -> {
                        return false;
                    }
                }
            }
            for (int i = 1; i < count; i++) {
                if (kinds[i] == 7 && !known(texts[first[i]], own)) {
                    return false;
                }
                if (kinds[i] == 12 && POWERFUL_NAMES.contains(texts[first[i]])) {
                    return false;
                }
                if (kinds[i] >= 9 && kinds[i] <= 11) {
                    String owner = texts[first[first[i]]];
                    String member = texts[first[second[i]]];
                    if (!allowed(owner, own) && !MEMBERS.contains(owner + "." + member) && !member.equals("clone")) {
                        return false;
                    }
                }
                if (kinds[i] == 1 && texts[i].equals("finalize")) {
                    return false;
                }
            }
            return true;
        } catch (IOException malformed) {
            return false;
        }
    }

    /** Whether a class may be named at all: some may be, though only few of their members. */
    private static boolean known(String name, Set<String> own) {
        return allowed(name, own) || name.equals("java/lang/System") || name.equals("java/lang/Class");
    }

    private static boolean allowed(String name, Set<String> own) {
        int start = name.lastIndexOf('[') + 1;
        if (start > 0) {
            if (name.charAt(start) != 'L') {
                return true;
            }
            name = name.substring(start + 1, name.length() - 1);
        }
        if (own.contains(name)) {
            return true;
        }
        int slash = name.lastIndexOf('/');
        String folder = slash < 0 ? "" : name.substring(0, slash);
        String simple = name.substring(slash + 1);
        if (PACKAGES.contains(folder)) {
            return true;
        }
        return switch (folder) {
            case "java/util" -> !NOT_OF_UTIL.contains(simple.split("\\$")[0]);
            case "java/lang" -> OF_LANG.contains(simple.split("\\$")[0]);
            case "java/lang/invoke" -> OF_LANG.contains("invoke/" + simple);
            case "java/lang/runtime" -> OF_LANG.contains("runtime/" + simple);
            case "java/io" -> OF_IO.contains(simple);
            default -> false;
        };
    }
}
