# frozen_string_literal: true

require "stringio"

module Septet
  # Rack applications: an object whose `call` takes the environment.
  class Rack
    def initialize(application)
      @application = application
    end

    def answer(call, request)
      status, headers, body = @application.call(environment(request))
      Reply.send(call, request, Answer.new(status.to_i, headers, Each.new(body)))
    ensure
      body.close if body.respond_to?(:close)
    end

    Answer = Struct.new(:status, :headers, :body)

    # A body as Rack has it, which may be an array.
    class Each
      include Enumerable

      def initialize(body)
        @body = body
      end

      def each(&block)
        @body.each(&block)
      end
    end

    private

    def environment(request)
      host, port = (request.headers["host"] || "localhost").split(":", 2)
      scheme = request.headers["x-forwarded-proto"] || "http"
      env = {
        "REQUEST_METHOD" => request.method,
        "SCRIPT_NAME" => "",
        "PATH_INFO" => request.target.split("?", 2).first,
        "QUERY_STRING" => request.query_string,
        "SERVER_NAME" => host,
        "SERVER_PORT" => port || (scheme == "https" ? "443" : "80"),
        "SERVER_PROTOCOL" => "HTTP/1.1",
        "REMOTE_ADDR" => (request.headers["x-forwarded-for"] || "127.0.0.1").split(",").first.strip,
        "rack.url_scheme" => scheme,
        "rack.input" => Input.new(request.stream),
        "rack.errors" => $stderr,
        "rack.multithread" => false,
        "rack.multiprocess" => true,
        "rack.run_once" => false,
        "rack.hijack?" => false
      }
      request.headers.each { |name, value| env[variable(name)] = value unless name.include?("_") }
      env
    end

    def variable(name)
      key = name.upcase.tr("-", "_")
      %w[CONTENT_TYPE CONTENT_LENGTH].include?(key) ? key : "HTTP_#{key}"
    end

    # The request's body as Rack reads it: forward only.
    class Input
      def initialize(pieces)
        @pieces = pieces
        @rest = "".b
        @ended = false
      end

      def read(size = nil, into = nil)
        fill(size)
        data = size ? @rest.slice!(0, size) : @rest.slice!(0, @rest.bytesize)
        data = nil if size&.positive? && data.empty?
        into ? into.replace(data || "") : data
        into && data.nil? ? nil : (into || data)
      end

      def gets
        fill(nil) unless @rest.include?("\n")
        @rest.empty? ? nil : @rest.slice!(0, (@rest.index("\n") || (@rest.bytesize - 1)) + 1)
      end

      def each
        while (line = gets)
          yield line
        end
      end

      def close; end

      private

      def fill(size)
        until @ended || (size && @rest.bytesize >= size)
          begin
            @rest << @pieces.next
          rescue StopIteration
            @ended = true
          end
        end
      end
    end
  end
end
