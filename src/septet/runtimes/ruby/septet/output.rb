# frozen_string_literal: true

module Septet
  # Printed text, attributed to the call that prints it; outside of calls it goes to the descriptor as ever.
  class Output
    def initialize(name, io)
      @name = name
      @io = io
    end

    def write(*texts)
      call = Thread.current[:septet_call]
      texts.sum do |text|
        text = text.to_s
        call && !call.finished ? call.log(@name, text) : @io.write(text)
        text.bytesize
      end
    end

    def print(*values)
      write(*values)
      nil
    end

    def <<(value)
      write(value)
      self
    end

    def puts(*values)
      values = [""] if values.empty?
      values.flatten.each { |value| write(value.to_s.end_with?("\n") ? value.to_s : "#{value}\n") }
      nil
    end

    def printf(format, *values)
      write(format(format, *values))
      nil
    end

    def flush
      @io.flush
      self
    end

    def sync
      true
    end

    def sync=(value); end

    def fsync
      0
    end

    def tty?
      false
    end
    alias isatty tty?

    def fileno
      @io.fileno
    end

    def close; end

    def self.attribute
      STDOUT.sync = true
      STDERR.sync = true
      $stdout = new("stdout", STDOUT)
      $stderr = new("stderr", STDERR)
    end
  end
end
