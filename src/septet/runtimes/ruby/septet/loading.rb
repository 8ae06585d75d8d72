# frozen_string_literal: true

module Septet
  # The source has nothing that could be called.
  class HandlerNotFound < StandardError; end

  # Finding the handler.
  module Loading
    FILES = %w[config.ru main.rb handler.rb app.rb function.rb].freeze
    NAMES = %w[handle handler main].freeze
    APPLICATIONS = %w[App APP Application].freeze

    # An object with `answer(call, request)`. `name` is "file.rb:method", "file.rb:Constant", either alone, or empty.
    def self.load(name, code)
      place, attribute = name.split(":", 2)
      place = only_file(code) if place.nil? || place.empty?
      place = "#{place}.rb" unless place.end_with?(".rb", ".ru")
      path = File.join(code, place)
      raise HandlerNotFound, "there is no file #{place}" unless File.file?(path)
      return rackup(path) if place.end_with?(".ru")

      require path
      attribute && !attribute.empty? ? named(attribute, place) : found(place)
    end

    def self.only_file(code)
      file = FILES.find { |one| File.file?(File.join(code, one)) }
      return file if file

      files = Dir.children(code).select { |one| one.end_with?(".rb") && !one.start_with?("test_") }
      raise HandlerNotFound, "the source has none of #{FILES.join(", ")} nor exactly one .rb file: set handler" if files.size != 1

      files.first
    end

    def self.named(attribute, place)
      return Handler.new(TOPLEVEL.method(attribute)) if attribute.match?(/\A[a-z_]\w*[?!]?\z/) && method?(attribute)

      owner, dot, method = attribute.rpartition(".")
      constant = dot.empty? ? attribute : owner
      raise HandlerNotFound, "#{place} has no #{attribute}" unless Object.const_defined?(constant)

      target = Object.const_get(constant)
      dot.empty? ? application(target) : Handler.new(target.method(method))
    rescue NameError => e
      raise HandlerNotFound, "#{place} has no #{attribute}: #{e.message}"
    end

    def self.found(place)
      name = NAMES.find { |one| method?(one) }
      return Handler.new(TOPLEVEL.method(name)) if name

      constant = APPLICATIONS.find { |one| Object.const_defined?(one) }
      return application(Object.const_get(constant)) if constant

      raise HandlerNotFound, "#{place} has neither a method #{NAMES.join(", ")} nor a Rack application #{APPLICATIONS.join(", ")}"
    end

    def self.method?(name)
      TOPLEVEL.respond_to?(name, true)
    end

    def self.application(target)
      require_relative "rack"
      target = target.new if !target.respond_to?(:call) && target.is_a?(Class)
      raise HandlerNotFound, "#{target} does not respond to call" unless target.respond_to?(:call)

      Rack.new(target)
    end

    def self.rackup(path)
      require_relative "rack"
      Rack.new(built(path))
    end

    def self.built(path)
      require "rack"
      found = ::Rack::Builder.parse_file(path)
      found.is_a?(Array) ? found.first : found
    rescue LoadError => e
      raise unless e.path == "rack"

      require_relative "rackup"
      Rackup.build(path)
    end

    # A method of (request, context), whatever it takes of them.
    class Handler
      def initialize(method)
        @method = method
        arity = method.arity
        @takes = arity.negative? ? 2 : [arity, 2].min
      end

      def answer(call, request)
        Reply.send(call, request, @method.call(*[request, Context.new(call, request)].first(@takes)))
      end
    end
  end
end
