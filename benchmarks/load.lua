-- wrk sends the prepared bodies in turn and prints one line of JSON at the end.
-- Arguments: the content type, and a file that lists the paths of the bodies.

local bodies, turn = {}, 0

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = args[1]
   for path in io.lines(args[2]) do
      local file = assert(io.open(path, "rb"))
      bodies[#bodies + 1] = wrk.format(nil, nil, nil, file:read("*a"))
      file:close()
   end
end

function request()
   turn = turn % #bodies + 1
   return bodies[turn]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"seconds":%.6f,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,'
      .. '"p50":%.3f,"p90":%.3f,"p99":%.3f,"max":%.3f}\n',
      summary.requests, summary.duration / 1e6, e.connect, e.read, e.write, e.status, e.timeout,
      latency:percentile(50) / 1000, latency:percentile(90) / 1000,
      latency:percentile(99) / 1000, latency.max / 1000))
end
