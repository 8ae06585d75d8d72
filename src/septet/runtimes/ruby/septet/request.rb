# frozen_string_literal: true

module Septet
  # Lower-case names, looked up in any case.
  class Headers < Hash
    def [](name)
      super(name.to_s.downcase)
    end

    def key?(name)
      super(name.to_s.downcase)
    end

    def add(name, value)
      name = name.downcase
      store(name, key?(name) ? "#{self[name]}#{name == "cookie" ? "; " : ", "}#{value}" : value)
    end
  end

  # One request. The body is read when it is asked for: `stream` yields its pieces as they come, `body` is all of it.
  class Request
    attr_reader :method, :target, :headers

    def initialize(call)
      @call = call
      line, *lines = call.head.split("\r\n")
      @method, @target = line.split(" ")
      @headers = Headers.new
      lines.each do |one|
        name, value = one.split(":", 2)
        @headers.add(name, value.strip) if value
      end
    end

    def path
      path = @target.split("?", 2).first
      path.include?("%") ? path.gsub(/%\h\h/) { |code| code[1, 2].hex.chr }.force_encoding("UTF-8") : path
    end

    def query_string
      @target.split("?", 2)[1] || ""
    end

    # Name -> last value.
    def query
      return {} if query_string.empty?

      require "uri"
      URI.decode_www_form(query_string).to_h
    end

    def stream
      call = @call
      Enumerator.new do |out|
        while (chunk = call.piece)
          out << chunk
        end
      end
    end

    def body
      @body ||= stream.to_a.join.force_encoding("UTF-8")
    end
    alias text body

    # The body as JSON; an empty one is an empty object.
    def json
      require "json"
      body.empty? ? {} : JSON.parse(body)
    end
  end

  # What is known around a call. `deadline` is in seconds since the epoch, `remaining` in seconds from now.
  class Context
    def initialize(call, request)
      @call = call
      @headers = request.headers
    end

    def invocation_id
      @headers["septet-invocation-id"] || ""
    end

    def request_id
      @headers["x-request-id"] || ""
    end

    def traceparent
      @headers["traceparent"] || ""
    end

    def deadline
      value = @headers["septet-deadline"]
      value ? value.to_i / 1000.0 : Float::INFINITY
    end

    def remaining
      [0.0, deadline - Time.now.to_f].max
    end

    # True once the caller is gone.
    def cancelled?
      @call.cancelled ? true : false
    end

    %w[function namespace revision instance].each do |name|
      define_method(name) { ENV["SEPTET_#{name.upcase}"] || "" }
    end

    def logger
      require "logger"
      @logger ||= Logger.new($stderr, formatter: ->(severity, _, _, message) { "#{severity} #{message}\n" })
    end
  end
end
