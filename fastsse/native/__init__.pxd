# The native core's parts: one concept a header, compiled into `fastsse._core`.
