# frozen_string_literal: true

module Septet
  # The frame codec (docs/frames.md).
  module Frames
    REQUEST, DATA, REPLY, CANCEL, WINDOW, LOG, READY, ERROR, STARTED, GONE, DRAIN, SPECIALISE = (1..12).to_a
    END_FLAG = 1
    NEVER_STARTED = 2
    WINDOW_SIZE = 256 * 1024
    PIECE = 64 * 1024
    FRAME_MAX = 1024 * 1024
    HEADER = 12

    Frame = Struct.new(:type, :flags, :stream, :head, :body)

    def self.encode(type, stream, head = "", body = "", flags = 0)
      [head.bytesize + body.bytesize, stream, type, flags, head.bytesize].pack("NNCCn") << head.b << body.b
    end

    def self.encode_window(stream, credit)
      encode(WINDOW, stream, "", [credit].pack("N"))
    end

    # Bytes in any pieces -> frames.
    class Decoder
      def initialize
        @held = "".b
      end

      def feed(data)
        @held << data
        frames = []
        at = 0
        while @held.bytesize - at >= HEADER
          length, stream, type, flags, head = @held.byteslice(at, HEADER).unpack("NNCCn")
          raise "the platform broke the frame protocol" if length > FRAME_MAX || head > length || !type.between?(1, 12)
          break if @held.bytesize - at - HEADER < length

          start = at + HEADER
          frames << Frame.new(type, flags, stream, @held.byteslice(start, head), @held.byteslice(start + head, length - head))
          at = start + length
        end
        @held = @held.byteslice(at, @held.bytesize - at) if at.positive?
        frames
      end
    end
  end
end
