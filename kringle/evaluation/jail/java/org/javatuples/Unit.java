package org.javatuples;

/** One value. */
public final class Unit<A> extends Tuple {
    private static final long serialVersionUID = 1L;

    public Unit(A value0) {
        super(value0);
    }

    public static <A> Unit<A> with(A value0) {
        return new Unit<>(value0);
    }

    @Override
    public int getSize() {
        return 1;
    }

    public A getValue0() {
        return at(0);
    }

    public <X> Unit<X> setAt0(X value) {
        return new Unit<>(value);
    }

    public <X> Pair<A, X> add(X value) {
        return new Pair<>(getValue0(), value);
    }
}
