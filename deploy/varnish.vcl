# Varnish in front of fastsse, or between it and the proxy that has the certificate.
vcl 4.1;

backend default {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 2s;
}

sub vcl_recv {
    # A stream is neither cached nor stored: without pipe Varnish keeps in memory what it passed on.
    # pipe_timeout (60 s) is longer than the heartbeat (15 s).
    if (req.method == "GET" && req.url ~ "^/(events|\.well-known/mercure)/?(\?|$)") {
        return (pipe);
    }
}

sub vcl_pipe {
    # The connection belongs to this one request.
    set bereq.http.Connection = "close";
}
