# frozen_string_literal: true

require_relative "frames"

module Septet
  # The call's reader is gone. No StandardError, so that a handler's `rescue` does not swallow it.
  class Cancelled < Exception; end # rubocop:disable Lint/InheritException

  # The platform closed the link: the process ends.
  class LinkClosed < Exception; end # rubocop:disable Lint/InheritException

  # One call: the pieces of its body that are here, and how much of its reply may be sent. The one that reads the link
  # changes `credit` and `chunks`, the one that answers `sent`.
  class Call
    attr_reader :number, :head, :chunks
    attr_accessor :complete, :credit, :cancelled, :started, :head_sent, :finished

    def initialize(link, number, head, body, complete)
      @link = link
      @number = number
      @head = head
      @chunks = body.empty? ? [] : [body]
      @complete = complete
      @credit = Frames::WINDOW_SIZE
      @sent = 0
      @owed = 0
      @lines = { "stdout" => +"", "stderr" => +"" }
    end

    # Says that the call is taken up; raises Cancelled when it must not run any more.
    def start
      if cancelled
        finish(Frames.encode(Frames::GONE, number, "", "", Frames::NEVER_STARTED))
        raise Cancelled
      end
      self.started = true
      @link.write(Frames.encode(Frames::STARTED, number))
    end

    # The next piece of the body; nil at its end.
    def piece
      @link.wait { cancelled || !chunks.empty? || complete }
      check
      chunk = chunks.shift
      return nil unless chunk

      @owed += chunk.bytesize
      if @owed >= Frames::WINDOW_SIZE / 4 && !complete
        @link.write(Frames.encode_window(number, @owed))
        @owed = 0
      end
      chunk
    end

    def check
      raise Cancelled if cancelled
    end

    # `body` is at most a piece.
    def send_head(head, body = "", last: false)
      check
      self.head_sent = true
      @sent += body.bytesize
      frame = Frames.encode(Frames::REPLY, number, head, body, last ? Frames::END_FLAG : 0)
      last ? finish(frame) : @link.write(frame)
    end

    def send_body(data)
      at = 0
      while at < data.bytesize
        @link.wait { cancelled || credit > @sent }
        check
        size = [data.bytesize - at, credit - @sent, Frames::PIECE].min
        @sent += size
        @link.write(Frames.encode(Frames::DATA, number, "", data.byteslice(at, size)))
        at += size
      end
      @link.poll
      check
    end

    def finish_body
      check
      finish(Frames.encode(Frames::DATA, number, "", "", Frames::END_FLAG))
    end

    def fail_with(json)
      finish(Frames.encode(Frames::ERROR, number, "", json))
    end

    def gone
      finish(Frames.encode(Frames::GONE, number))
    end

    def finish(frame)
      return if finished

      flush_lines
      self.finished = true
      @link.forget(self)
      @link.write(frame)
    end

    def log(name, text)
      *lines, rest = (@lines[name] << text).split("\n", -1)
      lines.each { |line| send_line(name, line) }
      if rest.bytesize > Frames::PIECE
        send_line(name, rest)
        rest = ""
      end
      @lines[name] = +rest
    end

    private

    def flush_lines
      @lines.each do |name, line|
        send_line(name, line) unless line.empty?
        @lines[name] = +""
      end
    end

    def send_line(name, line)
      at = 0
      loop do
        @link.write(Frames.encode(Frames::LOG, number, name, line.byteslice(at, Frames::PIECE)))
        at += Frames::PIECE
        break if at >= line.bytesize
      end
    end
  end

  # Reads and writes frames. In serial use whoever waits reads; with threads one reads and wakes the others.
  class Link
    attr_reader :waiting, :calls, :draining

    def initialize(descriptor, threaded:)
      @io = IO.for_fd(descriptor, "r+b", autoclose: false)
      @io.sync = true
      @io.close_on_exec = true
      @threaded = threaded
      @decoder = Frames::Decoder.new
      @waiting = []
      @calls = {}
      @draining = false
      @writing = Mutex.new
      @changes = Mutex.new
      @changed = ConditionVariable.new
    end

    def write(data)
      @writing.synchronize { @io.write(data) }
    rescue Errno::EPIPE, Errno::ECONNRESET, IOError
      raise LinkClosed
    end

    # Reads once and takes in the frames.
    def pump
      data = @io.readpartial(Frames::PIECE)
      @changes.synchronize do
        @decoder.feed(data).each { |frame| receive(frame) }
        @changed.broadcast
      end
    rescue EOFError, Errno::ECONNRESET
      raise LinkClosed
    end

    # What has come already, without waiting.
    def poll
      pump if !@threaded && IO.select([@io], nil, nil, 0)
    end

    def wait
      if @threaded
        @changes.synchronize { @changed.wait(@changes) until yield }
      else
        pump until yield
      end
    end

    # The next call to take up; for threads.
    def take
      @changes.synchronize do
        @changed.wait(@changes) while @waiting.empty?
        @waiting.shift
      end
    end

    def forget(call)
      @calls.delete(call.number)
    end

    private

    def receive(frame)
      case frame.type
      when Frames::REQUEST
        call = Call.new(self, frame.stream, frame.head, frame.body, frame.flags.anybits?(Frames::END_FLAG))
        @calls[frame.stream] = call
        @waiting << call
      when Frames::DRAIN
        @draining = true
      else
        call = @calls[frame.stream]
        to_call(call, frame) if call
      end
    end

    def to_call(call, frame)
      case frame.type
      when Frames::DATA
        call.chunks << frame.body unless frame.body.empty?
        call.complete = true if frame.flags.anybits?(Frames::END_FLAG)
      when Frames::WINDOW
        call.credit += frame.body.unpack1("N")
      when Frames::CANCEL
        call.cancelled = true
        return unless @waiting.delete(call)

        call.finish(Frames.encode(Frames::GONE, call.number, "", "", Frames::NEVER_STARTED))
      end
    end
  end
end
