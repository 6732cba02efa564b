import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/**
 * Reads a stream with OkHttp, which does not reconnect by itself: after a failure this program sends
 * its last id, as an application does. Prints a line of JSON for each event and failure.
 *
 * <p>Arguments: the URL, and the read timeout in milliseconds.
 */
public final class Reader {
  private static String lastId = "";

  public static void main(String[] arguments) throws InterruptedException {
    OkHttpClient client =
        new OkHttpClient.Builder()
            .readTimeout(Duration.ofMillis(Long.parseLong(arguments[1])))
            .build();
    EventSource.Factory sources = EventSources.createFactory(client);
    while (true) {
      CountDownLatch ended = new CountDownLatch(1);
      Request.Builder request = new Request.Builder().url(arguments[0]);
      if (!lastId.isEmpty()) {
        request.header("Last-Event-ID", lastId);
      }
      sources.newEventSource(request.build(), new Printer(ended));
      ended.await();
      Thread.sleep(20);
    }
  }

  private static final class Printer extends EventSourceListener {
    private final CountDownLatch ended;

    Printer(CountDownLatch ended) {
      this.ended = ended;
    }

    @Override
    public void onEvent(EventSource source, String id, String type, String data) {
      if (id != null) {
        lastId = id;
      }
      say("data", data);
    }

    @Override
    public void onFailure(EventSource source, Throwable error, Response response) {
      say("error", error == null ? "status " + response.code() : error.getClass().getSimpleName());
      ended.countDown();
    }

    @Override
    public void onClosed(EventSource source) {
      say("ended", "");
      ended.countDown();
    }
  }

  private static synchronized void say(String key, String value) {
    String escaped = value.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n");
    System.out.println("{\"" + key + "\": \"" + escaped + "\"}");
  }
}
