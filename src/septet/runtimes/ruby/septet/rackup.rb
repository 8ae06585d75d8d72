# frozen_string_literal: true

module Septet
  # A config.ru of `use` and `run`, for a source that brings no gem "rack" along.
  class Rackup
    def self.build(path)
      source = File.read(path).sub(/^__END__$.*\z/m, "")
      new.tap { |found| found.instance_eval(&eval("proc {\n#{source}\n}", TOPLEVEL_BINDING, path, 0)) }.application
    end

    def initialize
      @layers = []
    end

    def use(layer, *arguments, **options, &block)
      @layers << ->(inner) { layer.new(inner, *arguments, **options, &block) }
    end

    def run(application = nil, &block)
      @application = application || block
    end

    def map(*)
      raise HandlerNotFound, '`map` in a config.ru needs the gem "rack": name it in a Gemfile'
    end

    def application
      raise HandlerNotFound, "config.ru runs nothing: it has no `run`" unless @application

      @layers.reverse.reduce(@application) { |inner, layer| layer.call(inner) }
    end
  end
end
