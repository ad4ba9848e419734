package kringle;

import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Run one program without its tests, and answer the calls that the tests make from another process. Nothing here has ever
 * held a test, an expected value or a way to report a verdict: what the program can do is answer.
 */
public final class Apart {
    private Apart() {
    }

    public static void main(String[] arguments) throws Exception {
        Channel channel = new Channel();
        Map<String, Object> request = channel.receive();
        Loader loader = new Loader(request.get("classes"), false);
        channel.send(Map.of("loaded", true));
        Map<String, Object> call;
        while ((call = channel.receive()) != null) {
            Map<String, Object> answer = new LinkedHashMap<>();
            try {
                answer.put("value", Codec.encode(call(loader, call)));
            } catch (Throwable error) {
                answer.clear();
                answer.put("raised", Failure.describe(error, new String[0], 0));
            }
            channel.send(answer);
        }
    }

    private static Object call(Loader loader, Map<String, Object> call) throws Throwable {
        Class<?> owner = Class.forName((String) call.get("class"), true, loader);
        List<Object> given = new ArrayList<>();
        for (Object node : (List<?>) call.get("arguments")) {
            given.add(Codec.decode(node));
        }
        Method method = find(owner, (String) call.get("method"), (List<?>) call.get("types"));
        method.setAccessible(true);
        return Loader.invoke(method, given.toArray());
    }

    private static Method find(Class<?> owner, String name, List<?> types) throws NoSuchMethodException {
        for (Method method : owner.getDeclaredMethods()) {
            List<String> own = new ArrayList<>();
            for (Class<?> type : method.getParameterTypes()) {
                own.add(type.getSimpleName());
            }
            if (method.getName().equals(name) && own.equals(types)) {
                return method;
            }
        }
        throw new NoSuchMethodException(name + types);
    }
}
