def handle(request, context)
  query = request.query
  case request.path
  when "/echo" then request.stream
  when "/count" then request.stream.sum(&:bytesize).to_s
  when "/slow"
    sleep query["s"].to_f
    "slow"
  when "/mark"
    File.write(query["file"], "ran")
    "marked"
  when "/flood"
    piece = "x" * 65_536
    Enumerator.new { |out| (query["mib"].to_i * 16).times { out << piece } }
  when "/ticks"
    Enumerator.new do |out|
      query["n"].to_i.times do |i|
        out << "tick #{i}\n"
        sleep 0.05
      end
    end
  when "/raise" then raise ArgumentError, "a planned error"
  when "/exit" then exit!(3)
  when "/print"
    puts "printed by #{query["who"]}"
    "ok"
  when "/header" then [request.headers["X-Test"], 418, { "X-Answer" => "tea" }]
  else "hello #{request.method}"
  end
end
