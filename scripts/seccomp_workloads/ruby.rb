# What Ruby functions do: run under the tracer to learn, and under the filter to prove, which calls they need.
require "digest"
require "etc"
require "fileutils"
require "json"
require "open3"
require "openssl"
require "securerandom"
require "socket"
require "tmpdir"
require "zlib"

Dir.mktmpdir do |root|
  file = File.join(root, "a.txt")
  File.write(file, "x" * 5000)
  File.open(file, "r+") do |io|
    io.flock(File::LOCK_EX)
    io.fsync
    io.fdatasync
    io.truncate(100)
    io.pread(10, 0)
    io.pwrite("a", 0)
    io.seek(5)
  end
  FileUtils.cp(file, file + ".copy")
  File.rename(file + ".copy", file + ".moved")
  File.symlink(file, file + ".link")
  File.readlink(file + ".link")
  File.link(file, file + ".hard")
  File.chmod(0o600, file)
  File.utime(1, 1, file)
  FileUtils.mkdir_p(File.join(root, "d/e"))
  Dir.glob(root + "/**/*")
  Dir.chdir(root) { Dir.pwd }
  IO.copy_stream(file, file + ".s")

  UNIXServer.open(File.join(root, "s")) do |server|
    Thread.new { server.accept.close }
    UNIXSocket.open(File.join(root, "s"), &:read)
  end
end

server = TCPServer.new("127.0.0.1", 0)
thread = Thread.new { server.accept.tap { |peer| peer.write(peer.gets) }.close }
TCPSocket.open("127.0.0.1", server.addr[1]) do |peer|
  peer.puts "hello"
  raise "echo" unless peer.gets == "hello\n"
end
thread.join
server.close
datagram = UDPSocket.new
datagram.bind("127.0.0.1", 0)
datagram.send("x", 0, "127.0.0.1", datagram.addr[1])
datagram.recvfrom(10)
left, right = UNIXSocket.pair
left.send_io($stdout)
right.recv_io.close
IO.select([left], nil, nil, 0.01)
begin
  Addrinfo.getaddrinfo("localhost", 80)
rescue SocketError
  nil
end

raise "sh" unless `/bin/sh -c 'echo 1 | cat; ls -l / >/dev/null'` == "1\n"
Open3.capture3("/bin/cat", stdin_data: "x")
pid = spawn("/bin/sleep", "60", pgroup: true)
Process.kill(:TERM, pid)
Process.wait(pid)
Process.wait(fork { exit!(0) })
queue = Queue.new
4.times.map { |n| Thread.new { queue << (n * n) } }.each(&:join)
raise "threads" unless queue.size == 4
trap("USR1") {}
Process.kill(:USR1, Process.pid)
sleep 0.02
OpenSSL::PKey::EC.generate("prime256v1")
OpenSSL::SSL::SSLContext.new
Digest::SHA256.hexdigest("a")
SecureRandom.uuid
Zlib.gunzip(Zlib.gzip("a"))
Etc.nprocessors
Process.clock_gettime(Process::CLOCK_MONOTONIC)
Process.getrlimit(:NOFILE)
Process.times
GC.start
puts "done"
