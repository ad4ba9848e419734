package kringle;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;

/** One program's classes, with assertions on; static state ends with it. Our own classes are not visible from there. */
final class Loader extends ClassLoader {
    private final Map<String, byte[]> classes = new HashMap<>();
    private final boolean sees;

    Loader(Object encoded, boolean sees) {
        super(ClassLoader.getPlatformClassLoader());
        this.sees = sees;
        for (Map.Entry<?, ?> one : ((Map<?, ?>) encoded).entrySet()) { // a lambda here would cost every machine 10 ms
            classes.put((String) one.getKey(), Base64.getDecoder().decode((String) one.getValue()));
        }
        setDefaultAssertionStatus(true);
    }

    @Override
    protected Class<?> findClass(String name) throws ClassNotFoundException {
        byte[] code = classes.get(name);
        if (code != null) {
            return defineClass(name, code, 0, code.length);
        }
        if (name.startsWith("org.javatuples.") || sees && name.equals("kringle.Remote")) {
            return Loader.class.getClassLoader().loadClass(name);
        }
        throw new ClassNotFoundException(name);
    }

    /** Run a class's main method; throws what the program throws. */
    void runMain(String className) throws Throwable {
        Method main = Class.forName(className, true, this).getDeclaredMethod("main", String[].class);
        if (!Modifier.isStatic(main.getModifiers()) || !Modifier.isPublic(main.getModifiers())) {
            throw new NoSuchMethodException("a public static main");
        }
        main.setAccessible(true);
        invoke(main, new Object[] {new String[0]});
    }

    static Object invoke(Method method, Object[] arguments) throws Throwable {
        try {
            return method.invoke(null, arguments);
        } catch (InvocationTargetException wrapped) {
            throw wrapped.getTargetException();
        }
    }
}
