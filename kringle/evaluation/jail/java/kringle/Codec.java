package kringle;

import java.lang.reflect.Array;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.LinkedList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.Vector;
import org.javatuples.Tuple;

/**
 * Values between a program and its tests, when they live in two processes: copies of plain data. The decoder makes objects
 * of the JDK's and javatuples' own classes and nothing else, so a comparison in the tests meets no method of the
 * program's. Anything else arrives as an object that equals nothing.
 */
final class Codec {
    private static final int DEEPEST = 400;

    private Codec() {
    }

    static Object encode(Object value) {
        return encode(value, 0);
    }

    private static Object encode(Object value, int depth) {
        if (depth > DEEPEST) {
            throw new IllegalArgumentException("a value that is too deep, or contains itself");
        }
        if (value == null || value instanceof Boolean || value instanceof String) {
            return value;
        }
        Class<?> kind = value.getClass();
        if (value instanceof Long || value instanceof Integer || value instanceof Short || value instanceof Byte
                || value instanceof Float || value instanceof Double || kind == BigInteger.class
                || kind == BigDecimal.class) {
            return List.of(kind.getSimpleName(), value.toString());
        }
        if (value instanceof Character) {
            return List.of("Character", (long) (Character) value);
        }
        if (kind.isArray()) {
            return node("array", kind.getComponentType().getName(), arrayItems(value, depth));
        }
        if (value instanceof List<?> list) {
            String name = value instanceof LinkedList ? "LinkedList" : value instanceof Vector ? "Vector" : "ArrayList";
            return node("list", name, items(list, depth));
        }
        if (value instanceof Set<?> set) {
            String name = value instanceof TreeSet ? "TreeSet" : value instanceof LinkedHashSet ? "LinkedHashSet" : "HashSet";
            return node("set", name, items(set, depth));
        }
        if (value instanceof Map<?, ?> map) {
            String name = value instanceof TreeMap ? "TreeMap" : value instanceof LinkedHashMap ? "LinkedHashMap" : "HashMap";
            List<Object> pairs = new ArrayList<>();
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                pairs.add(encode(entry.getKey(), depth + 1));
                pairs.add(encode(entry.getValue(), depth + 1));
            }
            return node("map", name, pairs);
        }
        if (value instanceof Optional<?> optional) {
            return optional.isPresent() ? List.of("optional", node(encode(optional.get(), depth + 1))) : List.of("optional");
        }
        if (value instanceof Tuple tuple) {
            return node("tuple", kind.getSimpleName(), items(tuple, depth));
        }
        return List.of("other", kind.getName());
    }

    private static List<Object> node(Object... parts) {
        List<Object> made = new ArrayList<>();
        for (Object part : parts) {
            made.add(part);
        }
        return made;
    }

    private static List<Object> items(Iterable<?> values, int depth) {
        List<Object> made = new ArrayList<>();
        for (Object value : values) {
            made.add(encode(value, depth + 1));
        }
        return made;
    }

    private static List<Object> arrayItems(Object array, int depth) {
        List<Object> made = new ArrayList<>();
        for (int i = 0; i < Array.getLength(array); i++) {
            made.add(encode(Array.get(array, i), depth + 1));
        }
        return made;
    }

    static Object decode(Object node) {
        if (node == null || node instanceof Boolean || node instanceof String) {
            return node;
        }
        List<?> parts = (List<?>) node;
        String kind = (String) parts.get(0);
        Object first = parts.size() > 1 ? parts.get(1) : null;
        switch (kind) {
            case "Long":
                return Long.valueOf((String) first);
            case "Integer":
                return Integer.valueOf((String) first);
            case "Short":
                return Short.valueOf((String) first);
            case "Byte":
                return Byte.valueOf((String) first);
            case "Float":
                return Float.valueOf((String) first);
            case "Double":
                return Double.valueOf((String) first);
            case "BigInteger":
                return new BigInteger((String) first);
            case "BigDecimal":
                return new BigDecimal((String) first);
            case "Character":
                return (char) (long) (Long) first;
            case "optional":
                return first == null ? Optional.empty() : Optional.of(decode(((List<?>) first).get(0)));
            case "array":
                return array((String) first, values(parts.get(2)));
            case "list": {
                List<Object> list = switch ((String) first) {
                    case "LinkedList" -> new LinkedList<>();
                    case "Vector" -> new Vector<>();
                    default -> new ArrayList<>();
                };
                list.addAll(values(parts.get(2)));
                return list;
            }
            case "set": {
                Set<Object> set = switch ((String) first) {
                    case "TreeSet" -> new TreeSet<>();
                    case "LinkedHashSet" -> new LinkedHashSet<>();
                    default -> new HashSet<>();
                };
                set.addAll(values(parts.get(2)));
                return set;
            }
            case "map": {
                Map<Object, Object> map = switch ((String) first) {
                    case "TreeMap" -> new TreeMap<>();
                    case "LinkedHashMap" -> new LinkedHashMap<>();
                    default -> new HashMap<>();
                };
                List<Object> pairs = values(parts.get(2));
                for (int i = 0; i + 1 < pairs.size(); i += 2) {
                    map.put(pairs.get(i), pairs.get(i + 1));
                }
                return map;
            }
            case "tuple":
                return Tuple.of(values(parts.get(2)).toArray());
            case "other":
                return new Object();
            default:
                throw new IllegalArgumentException("unknown kind " + kind);
        }
    }

    private static List<Object> values(Object nodes) {
        List<Object> made = new ArrayList<>();
        for (Object node : (List<?>) nodes) {
            made.add(decode(node));
        }
        return made;
    }

    private static Object array(String component, List<Object> values) {
        Class<?> kind = switch (component) {
            case "long" -> long.class;
            case "int" -> int.class;
            case "short" -> short.class;
            case "byte" -> byte.class;
            case "char" -> char.class;
            case "float" -> float.class;
            case "double" -> double.class;
            case "boolean" -> boolean.class;
            case "java.lang.String" -> String.class;
            case "java.lang.Long" -> Long.class;
            case "java.lang.Integer" -> Integer.class;
            case "java.lang.Double" -> Double.class;
            case "java.lang.Float" -> Float.class;
            case "java.lang.Boolean" -> Boolean.class;
            case "java.lang.Character" -> Character.class;
            default -> values.isEmpty() || values.get(0) == null || !component.startsWith("[")
                    ? Object.class : values.get(0).getClass();
        };
        Object made = Array.newInstance(kind, values.size());
        for (int i = 0; i < values.size(); i++) {
            Array.set(made, i, values.get(i));
        }
        return made;
    }
}
