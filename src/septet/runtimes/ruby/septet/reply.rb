# frozen_string_literal: true

module Septet
  # From what a handler returned to a reply.
  module Reply
    TEXT = "text/plain; charset=utf-8"
    BYTES = "application/octet-stream"
    JSON_TYPE = "application/json"

    def self.encode_head(status, pairs)
      raise ArgumentError, "#{status} is not an HTTP status" unless status.is_a?(Integer) && status.between?(100, 599)

      pairs.each do |name, value|
        bad = name.empty? || name.match?(/[\r\n\0:]/n) || value.b.match?(/[\r\n\0]/n)
        raise ArgumentError, "not a header: #{name.inspect}" if bad
      end
      +"HTTP/1.1 #{status} \r\n".b << pairs.map { |name, value| "#{name}: #{value}\r\n".b }.join
    end

    def self.body?(method, status)
      method != "HEAD" && status >= 200 && status != 204 && status != 304
    end

    def self.send(call, request, result)
      status, pairs, body = take_apart(result)
      if stream?(body)
        stream(call, request, status || 200, pairs, body)
      else
        whole(call, request, status, pairs, body)
      end
    ensure
      body.close if body.respond_to?(:close)
    end

    # (status or nil, pairs, body) of: a body, [body, status], [body, status, headers], or an object that has them.
    def self.take_apart(result)
      if result.is_a?(Array) && result.size.between?(2, 3) && result[1].is_a?(Integer) && (result.size == 2 || result[2].is_a?(Hash))
        [result[1], pairs_of(result[2]), result[0]]
      elsif result.respond_to?(:status) && result.respond_to?(:body)
        [result.status, pairs_of(result.respond_to?(:headers) ? result.headers : {}), result.body]
      else
        [nil, [], result]
      end
    end

    def self.pairs_of(headers)
      (headers || {}).flat_map do |name, value|
        values = value.is_a?(Array) ? value : value.to_s.split("\n", -1)
        values = [""] if values.empty?
        values.map { |one| [name.to_s, one.to_s] }
      end.reject { |name, _| name.casecmp?("content-length") }
    end

    def self.stream?(body)
      body.is_a?(Enumerator) || (body.respond_to?(:each) && !body.is_a?(Array) && !body.is_a?(Hash) && !body.is_a?(Struct))
    end

    def self.whole(call, request, status, pairs, body)
      status ||= body.nil? ? 204 : 200
      data, type = body.nil? ? ["", nil] : to_bytes(body, false)
      typed(pairs, type)
      with_body = body?(request.method, status)
      pairs << ["content-length", data.bytesize.to_s] if with_body || request.method == "HEAD"
      head = encode_head(status, pairs)
      data = "" unless with_body
      return call.send_head(head, data, last: true) if data.bytesize <= Frames::PIECE

      call.send_head(head)
      call.send_body(data)
      call.finish_body
    end

    def self.stream(call, request, status, pairs, body)
      with_body = body?(request.method, status)
      body.each do |value|
        data, type = to_bytes(value, true)
        unless call.head_sent
          typed(pairs, type)
          call.send_head(encode_head(status, pairs))
        end
        break unless with_body

        call.send_body(data)
      end
      call.send_head(encode_head(status, pairs)) unless call.head_sent
      call.finish_body
    end

    def self.typed(pairs, type)
      pairs << ["content-type", type] if type && pairs.none? { |name, _| name.casecmp?("content-type") }
    end

    # A piece of a body and the type of a reply that names none. A JSON value in a stream is a line.
    def self.to_bytes(value, streaming)
      return [value, value.encoding == Encoding::BINARY ? BYTES : TEXT] if value.is_a?(String)

      require "json"
      text = JSON.generate(value)
      streaming ? ["#{text}\n", "application/x-ndjson"] : [text, JSON_TYPE]
    end
  end
end
