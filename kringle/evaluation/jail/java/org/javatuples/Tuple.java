package org.javatuples;

import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;

/**
 * A fixed number of values, typed one by one. The classes of this package have the names and methods that MultiPL-E's Java
 * problems use of the library of the same name; they were written for Kringle, so that no system package is needed.
 */
public abstract class Tuple implements Iterable<Object>, Comparable<Tuple>, java.io.Serializable {
    private static final long serialVersionUID = 1L;

    private final Object[] values;

    Tuple(Object... values) {
        this.values = values;
    }

    /** A tuple of the class that has this many values, 1 to 10. */
    public static Tuple of(Object... values) {
        switch (values.length) {
            case 1:
                return new Unit<>(values[0]);
            case 2:
                return new Pair<>(values[0], values[1]);
            case 3:
                return new Triplet<>(values[0], values[1], values[2]);
            case 4:
                return new Quartet<>(values[0], values[1], values[2], values[3]);
            case 5:
                return new Quintet<>(values[0], values[1], values[2], values[3], values[4]);
            case 6:
                return new Sextet<>(values[0], values[1], values[2], values[3], values[4], values[5]);
            case 7:
                return new Septet<>(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
            case 8:
                return new Octet<>(values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7]);
            case 9:
                return new Ennead<>(values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7], values[8]);
            case 10:
                return new Decade<>(values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7], values[8], values[9]);
            default:
                throw new IllegalArgumentException("no tuple of " + values.length);
        }
    }

    @SuppressWarnings("unchecked")
    final <T> T at(int index) {
        return (T) values[index];
    }

    public abstract int getSize();

    public final Object getValue(int index) {
        return values[index];
    }

    @Override
    public final Iterator<Object> iterator() {
        return toList().iterator();
    }

    public final List<Object> toList() {
        return Collections.unmodifiableList(Arrays.asList(values));
    }

    public final Object[] toArray() {
        return values.clone();
    }

    public final boolean contains(Object value) {
        return toList().contains(value);
    }

    public final int indexOf(Object value) {
        return toList().indexOf(value);
    }

    public final int lastIndexOf(Object value) {
        return toList().lastIndexOf(value);
    }

    @Override
    public final boolean equals(Object other) {
        return other != null && other.getClass() == getClass() && Arrays.equals(values, ((Tuple) other).values);
    }

    @Override
    public final int hashCode() {
        return toList().hashCode();
    }

    @Override
    public final String toString() {
        return toList().toString();
    }

    /** By the first values that differ; a shorter tuple comes before a longer one that begins alike. */
    @Override
    @SuppressWarnings({"unchecked", "rawtypes"})
    public final int compareTo(Tuple other) {
        for (int i = 0; i < Math.min(values.length, other.values.length); i++) {
            int order = ((Comparable) values[i]).compareTo(other.values[i]);
            if (order != 0) {
                return order;
            }
        }
        return Integer.compare(values.length, other.values.length);
    }
}
